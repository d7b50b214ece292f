"""Estimators find people in frames; the model store brings them their models."""
