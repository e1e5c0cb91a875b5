"""Figures, from metrics, tables and predictions."""
