"""Lattice-LSTM (Zhang and Yang 2018): words at every character, batched, and as a graph's loop."""
