"""pytorch-crf, held to the transitions that the label scheme allows."""

from __future__ import annotations

import torch
from torch import Tensor
from torchcrf import CRF

from cnerta.models.runtime.decoding import CrfParameters
from cnerta.models.runtime.labels import LabelScheme

__all__ = ["ConstrainedCrf"]

# Low enough for a probability of nothing, high enough for float16.
_FORBIDDEN = -1e4


class ConstrainedCrf(CRF):  # type: ignore[misc]
    """A linear-chain CRF in which sequences that the scheme does not allow have no probability.

    Of a scheme that allows all it is pytorch-crf as it is, the paper's plain CRF.
    Forbidden scores are constants, put back after every optimiser step by :meth:`constrain`.
    """

    forbidden_starts: Tensor
    forbidden_transitions: Tensor
    forbidden_ends: Tensor

    def __init__(self, scheme: LabelScheme) -> None:
        super().__init__(len(scheme), batch_first=True)
        for name, allowed in (
            ("forbidden_starts", scheme.allowed_starts()),
            ("forbidden_transitions", scheme.allowed_transitions()),
            ("forbidden_ends", scheme.allowed_ends()),
        ):
            self.register_buffer(name, torch.from_numpy(~allowed), persistent=False)
        self.constrain()

    @torch.no_grad()
    def constrain(self) -> None:
        """Set the forbidden scores."""
        self.start_transitions.masked_fill_(self.forbidden_starts, _FORBIDDEN)
        self.transitions.masked_fill_(self.forbidden_transitions, _FORBIDDEN)
        self.end_transitions.masked_fill_(self.forbidden_ends, _FORBIDDEN)

    def parameters_as_values(self) -> CrfParameters:
        """Copies of the learned scores, for decoding without torch."""
        return CrfParameters(
            self.start_transitions.detach().float().cpu().numpy().copy(),
            self.transitions.detach().float().cpu().numpy().copy(),
            self.end_transitions.detach().float().cpu().numpy().copy(),
        )
