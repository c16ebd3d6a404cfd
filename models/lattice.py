"""Lattice-LSTM: an LSTM over characters whose cells also hear of the words that end at them.

Zhang and Yang (ACL 2018), section 3.3. Every word of a lexicon that is found in the text has a cell
that starts from the state of its first character and reaches the cell of its last one through a
gate of its own, so that the network sees every way to divide the text and need not choose one.

Batched: one step a character position, for all sentences and both directions at once. A word's
gates need the state of its first character and nothing later, so a step finds all that the words
ending there need in a window over the last states, however many they are and wherever they begin.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnerta.models.config import TextConfig
from cnerta.models.lexicon import Lexicon
from cnerta.models.text import MAX_CHARACTERS
from cnerta.models.vocabulary import PADDING_ID
from cnerta.models.words import WordEmbedding

__all__ = ["LatticeEncoder", "LatticeLstm", "words_at_once"]

_DIRECTIONS = 2


class _State(NamedTuple):
    """What a character leaves to those after it, in both directions.

    Attributes:
        gates: What it adds to the next character's gates. shape: (2, batch, 4 * size)
        cell: Its cell. shape: (2, batch, size)
        window: For each of the last characters what it adds to the gates of the words that begin
            there, and its cell. shape: (2, batch, reach, 4 * size)
    """

    gates: Tensor
    cell: Tensor
    window: Tensor


class _Step(NamedTuple):
    """What a character position brings, in both directions, or all of them along a first axis.

    Attributes:
        gates: The character's share of its own gates and of the words' gates into its cell.
            shape: (2, batch, 5 * size)
        word_gates: Each word's share of its gates. shape: (2, batch, slots, 3 * size)
        places: Where each word's first character is in the window, flattened to rows.
            shape: (2, batch, slots)
        present: Which slots hold a word. shape: (2, batch, slots)
    """

    gates: Tensor
    word_gates: Tensor
    places: Tensor
    present: Tensor


class LatticeEncoder(nn.Module):
    """Character and word embeddings under a Lattice-LSTM (the paper's Lattice-LSTM row).

    Attributes:
        width: Size of a character's representation.
        max_characters: Longest text.
    """

    def __init__(self, config: TextConfig, characters: int, lexicon: Lexicon) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, config.embedding, padding_idx=PADDING_ID)
        self.words = WordEmbedding(
            lexicon,
            config.word_embedding,
            vectors=bool(config.word_embeddings),
            tags=config.tag_embedding,
            hidden=config.hide_words,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.lattice = LatticeLstm(
            config.embedding,
            self.words.width,
            config.hidden,
            most_words=words_at_once(lexicon.words),
            longest_word=max(map(len, lexicon.words), default=0),
        )
        self.width = config.hidden
        self.max_characters = MAX_CHARACTERS

    def forward(self, characters: Tensor, counts: Tensor, matches: Tensor) -> Tensor:
        """Encode.

        Args:
            characters: Ids. shape: (batch, length)
            counts: Valid characters of each text. shape: (batch,)
            matches: Words in each text, see :mod:`cnerta.models.lexicon`.
                shape: (batch, matches, 3)

        Returns:
            shape: (batch, length, width)
        """
        embedded = self.dropout(self.embedding(characters))
        words = self.dropout(self.words(matches[:, :, 2]))
        encoded: Tensor = self.dropout(self.lattice(embedded, counts, words, matches))
        return encoded


def words_at_once(words: Iterable[str]) -> int:
    """How many of some words can end at one character, or begin there, in any text.

    Words that end together are all endings of the longest of them, so no text has to be known.
    Words of one character do not count.
    """
    known = {word for word in words if len(word) > 1}
    most = 0
    for word in known:
        endings = sum(word[cut:] in known for cut in range(len(word) - 1))
        beginnings = sum(word[:cut] in known for cut in range(2, len(word) + 1))
        most = max(most, endings, beginnings)
    return most


class LatticeLstm(nn.Module):
    """A bidirectional Lattice-LSTM over padded sequences.

    Attributes:
        most_words: Words that can end (for the backward direction, begin) at one character.
        longest_word: Characters of the longest word. Matches that go beyond one of the two are
            ignored; those of the lexicon that both were taken from never do.
    """

    def __init__(
        self, inputs: int, word_inputs: int, hidden: int, *, most_words: int, longest_word: int
    ) -> None:
        """Build with random weights.

        Args:
            inputs: Size of a character embedding.
            word_inputs: Size of a word embedding.
            hidden: Size of the representation, both directions together.
            most_words: See the class.
            longest_word: See the class.
        """
        super().__init__()
        self.most_words = max(1, most_words)
        self.longest_word = max(2, longest_word)
        size = hidden // _DIRECTIONS
        self.size = size
        # For each direction, in the paper's names: what W^c and W^l do to x^c, W^w to x^w, W^c and
        # W^w to h^c, and W^l to c^w.
        self.character_weight = nn.Parameter(torch.empty(_DIRECTIONS, inputs, 5 * size))
        self.character_bias = nn.Parameter(torch.empty(_DIRECTIONS, 1, 5 * size))
        self.word_weight = nn.Parameter(torch.empty(_DIRECTIONS, word_inputs, 3 * size))
        self.word_bias = nn.Parameter(torch.empty(_DIRECTIONS, 1, 3 * size))
        self.state_weight = nn.Parameter(torch.empty(_DIRECTIONS, size, 7 * size))
        self.cell_weight = nn.Parameter(torch.empty(_DIRECTIONS, size, size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(size**-0.5), size**-0.5)  # as torch's LSTM does

    def forward(self, x: Tensor, counts: Tensor, words: Tensor, matches: Tensor) -> Tensor:
        """Read each sequence from both ends.

        Args:
            x: Characters. shape: (batch, length, inputs)
            counts: Valid characters of each sequence. shape: (batch,)
            words: Embeddings of the matches' words. shape: (batch, matches, word_inputs)
            matches: (start, end, word id) of each, word id 0 for padding. Words of one character
                are ignored: a character cannot wait for its own state.
                shape: (batch, matches, 3)

        Returns:
            shape: (batch, length, hidden)
        """
        index = torch.arange(x.shape[1], device=x.device)
        turned = (counts[:, None] - 1 - index).clamp(min=0)[:, :, None]
        both = torch.stack([x, x.gather(1, turned.expand(-1, -1, x.shape[2]))])
        gates = _project(both, self.character_weight, self.character_bias)
        word_gates = _project(
            words.expand(_DIRECTIONS, -1, -1, -1), self.word_weight, self.word_bias
        )
        steps, reach = self._steps(gates, word_gates, counts, matches)
        state = _State(
            gates.new_zeros(_DIRECTIONS, x.shape[0], 4 * self.size),
            gates.new_zeros(_DIRECTIONS, x.shape[0], self.size),
            gates.new_zeros(_DIRECTIONS, x.shape[0], reach, 4 * self.size),
        )
        hidden = self._run(state, steps)  # shape: (length, 2, batch, size)
        ahead, behind = hidden[:, 0].transpose(0, 1), hidden[:, 1].transpose(0, 1)
        behind = behind.gather(1, turned.expand(-1, -1, self.size))
        return torch.cat([ahead, behind], dim=2)

    def _steps(
        self, gates: Tensor, word_gates: Tensor, counts: Tensor, matches: Tensor
    ) -> tuple[_Step, int]:
        """Sort the matches to the positions where their words end.

        Args:
            gates: shape: (2, batch, length, 5 * size)
            word_gates: shape: (2, batch, matches, 3 * size)
            counts: shape: (batch,)
            matches: shape: (batch, matches, 3)

        Returns:
            The steps along a first axis, and how far back the window must reach.
        """
        _, batch, length, _ = gates.shape
        start, end, word = matches.unbind(dim=2)
        # Seen from the other end, a word begins where it ended. shape: (2, batch, matches)
        starts = torch.stack([start, counts[:, None] - end])
        ends = torch.stack([end, counts[:, None] - start])
        back = ends - 1 - starts
        usable = (word > 0) & (back > 0) & (back < self.longest_word)
        # Words that end together take the slots of that position in turn.
        together = (ends[..., :, None] == ends[..., None, :]) & usable[..., None, :]
        slot = together.tril(diagonal=-1).sum(dim=-1)
        usable &= slot < self.most_words
        if torch.compiler.is_exporting():
            slots, reach = self.most_words, self.longest_word - 1
        else:
            slots = int((slot * usable).amax()) + 1 if word.numel() else 1
            reach = max(1, int((back * usable).amax())) if word.numel() else 1

        # Each slot's match, counted from 1; what belongs nowhere goes to a place past the end.
        cells = length * slots
        cell = torch.where(usable, (ends - 1) * slots + slot, cells)
        number = torch.arange(1, matches.shape[1] + 1, device=cell.device)
        table = cell.new_zeros(_DIRECTIONS, batch, cells + 1)
        table = table.scatter(2, cell, number.expand_as(cell))[..., :cells]
        present = table > 0
        rows = torch.arange(_DIRECTIONS * batch, device=cell.device).view(_DIRECTIONS, batch, 1)
        chosen = nn.functional.pad(word_gates, (0, 0, 1, 0)).flatten(0, 2)
        chosen = chosen.index_select(0, (rows * (matches.shape[1] + 1) + table).flatten())
        distance = nn.functional.pad(back, (1, 0)).gather(2, table)
        places = rows * reach + torch.where(present, reach - distance, 0)

        shape = (_DIRECTIONS, batch, length, slots)
        steps = _Step(
            gates.permute(2, 0, 1, 3),
            chosen.view(*shape, 3 * self.size).permute(2, 0, 1, 3, 4),
            places.view(shape).permute(2, 0, 1, 3),
            present.view(shape).permute(2, 0, 1, 3),
        )
        return steps, reach

    def _run(self, state: _State, steps: _Step) -> Tensor:
        """All steps. Returns the hidden states, shape: (length, 2, batch, size)."""
        if torch.compiler.is_exporting():
            # Becomes one loop of free length in the graph. Only exporting needs it.
            from torch._higher_order_ops.scan import scan

            def body(
                carried: tuple[Tensor, ...], step: tuple[Tensor, ...]
            ) -> tuple[tuple[Tensor, ...], Tensor]:
                left, output = self._step(_State(*carried), _Step(*step))
                return tuple(left), output

            hidden: Tensor
            _, hidden = scan(body, tuple(state), tuple(s.contiguous() for s in steps))
            return hidden
        outputs = []
        for step in zip(*(s.unbind() for s in steps), strict=True):
            state, output = self._step(state, _Step(*step))
            outputs.append(output)
        return torch.stack(outputs)

    def _step(self, state: _State, step: _Step) -> tuple[_State, Tensor]:
        """One character of each sequence (equations 11 to 16). Returns state and hidden state."""
        size = self.size
        own, into = step.gates[..., : 4 * size], step.gates[..., 4 * size :]
        gates = own + state.gates
        i, o, f = gates[..., : 3 * size].sigmoid().chunk(3, dim=2)
        candidate = gates[..., 3 * size :].tanh()

        past = state.window.flatten(0, 2).index_select(0, step.places.flatten())
        past = past.view(*step.places.shape, 4 * size)
        word_gates = step.word_gates + past[..., : 3 * size]
        word_i, word_f = word_gates[..., : 2 * size].sigmoid().chunk(2, dim=3)
        word_cell = word_f * past[..., 3 * size :] + word_i * word_gates[..., 2 * size :].tanh()
        # A gate a word and dimension, brought to sum to one with the character's input gate.
        heard = _project(word_cell, self.cell_weight) + into[:, :, None]
        weights = heard.sigmoid().exp() * step.present[..., None]
        weight = i.exp()
        words = (weights * word_cell).sum(dim=2)
        mixed = (weight * candidate + words) / (weight + weights.sum(dim=2))
        # Where no word ends it is an LSTM.
        cell = torch.where(
            step.present.any(dim=2, keepdim=True), mixed, f * state.cell + i * candidate
        )

        hidden = o * cell.tanh()
        left = hidden @ self.state_weight
        newest = torch.cat([left[..., 4 * size :], cell], dim=2)
        window = torch.cat([state.window[:, :, 1:], newest[:, :, None]], dim=2)
        # A copy, because a loop in a graph may not give out views of one tensor.
        return _State(left[..., : 4 * size].clone(), cell, window), hidden


def _project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each direction by its own weight.

    Args:
        x: shape: (2, batch, length, inputs)
        weight: shape: (2, inputs, outputs)
        bias: shape: (2, 1, outputs)

    Returns:
        shape: (2, batch, length, outputs)
    """
    flat = x.flatten(1, 2)
    projected = flat @ weight if bias is None else torch.baddbmm(bias, flat, weight)
    return projected.view(*x.shape[:3], weight.shape[2])
