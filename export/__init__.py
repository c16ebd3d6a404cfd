"""Trained checkpoint to ONNX bundle, with the parity check."""
