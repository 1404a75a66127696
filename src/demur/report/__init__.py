"""The report: figures and pages of a study, a comparison, the protocol and the demo; and the step viewer."""

from demur.report.compare.page import comparison_figure, write_comparison
from demur.report.demo.page import write_story
from demur.report.paper.page import write_paper
from demur.report.parts.figures import irr_figure, projection_figure, roc_figure, save_figures
from demur.report.parts.trajectories import bands_figure, signal_figure
from demur.report.study.page import write_report
from demur.report.viewer.page import write_viewer

__all__ = [
    "bands_figure",
    "comparison_figure",
    "irr_figure",
    "projection_figure",
    "roc_figure",
    "save_figures",
    "signal_figure",
    "write_comparison",
    "write_paper",
    "write_report",
    "write_story",
    "write_viewer",
]
