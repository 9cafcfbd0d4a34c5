"""Checkpoint -> one proven ONNX file: `from gan.export import export`."""

from .gate import export, export_all
from .report import Exactness, Fidelity, FidelityRow, ParityRow, Report

__all__ = ["Exactness", "Fidelity", "FidelityRow", "ParityRow", "Report", "export", "export_all"]
