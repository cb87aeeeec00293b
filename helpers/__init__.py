"""Seeing Why: explaining convolutional networks. The book explains, this package implements; see `helpers.core` first."""

__version__ = "0.1.0"
