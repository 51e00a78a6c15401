"""A trained model in the form in which it is shipped."""

from typing import TYPE_CHECKING

from bertkeras.lazy import lazy_names

if TYPE_CHECKING:
    from bertkeras.export.browser import export_browser
    from bertkeras.export.litert import export_litert
    from bertkeras.export.onnx import export_onnx
    from bertkeras.export.saved_model import export_saved_model

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "export_onnx": "onnx",
        "export_saved_model": "saved_model",
        "export_litert": "litert",
        "export_browser": "browser",
    },
)

__all__ = ["export_browser", "export_litert", "export_onnx", "export_saved_model"]
