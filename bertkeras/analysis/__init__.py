"""Looking inside a model: attention, attribution, probes, bias."""

from bertkeras.analysis.attention_maps import Trace, plot_attention, rollout, trace, without_heads
from bertkeras.analysis.attribution import Attribution, Explainer
from bertkeras.analysis.bias import Association, CrowsPairs, Share, StereoSet, crows_pairs, stereoset, weat
from bertkeras.analysis.counterfactual import swap_words
from bertkeras.analysis.probes import Probe, head_targets, layer_probes

__all__ = [
    "Association",
    "Attribution",
    "CrowsPairs",
    "Explainer",
    "Probe",
    "Share",
    "StereoSet",
    "Trace",
    "crows_pairs",
    "head_targets",
    "layer_probes",
    "plot_attention",
    "rollout",
    "stereoset",
    "swap_words",
    "trace",
    "weat",
    "without_heads",
]
