"""``python -m cnerta.train``: what ``torchrun -m`` and ``accelerate launch -m`` start."""

from cnerta.train.commands.entry import train

train()
