"""``python -m cnerta.train``: what ``torchrun -m`` and ``accelerate launch -m`` start."""

from cnerta.train.commands.train import main

main()
