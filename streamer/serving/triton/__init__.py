"""An engine whose graphs run on NVIDIA Triton: what it is told over gRPC, and what comes back."""
