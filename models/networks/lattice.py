"""Lattice-LSTM: an LSTM over characters whose cells also take in the words that end at them.

Zhang and Yang (ACL 2018), section 3.3. Every word of a lexicon that is found in the text has a cell
that starts from the state of its first character and reaches the cell of its last one through a
gate of its own, so that the network sees every way to divide the text and need not choose one.

Batched: one step a character position, for all sentences and both directions at once. A word's
cell needs the state of its first character and nothing later, so a step makes the cells of all
words that begin there, and takes those of all that end there from the cells that were made before.

An exported graph has one loop of free length, whose state cannot grow: there a step finds what the
words ending there need in a window over the last characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnerta.models.config import TextConfig
from cnerta.models.networks.bilstm import MAX_CHARACTERS
from cnerta.models.networks.lattice_plan import plan_lattice
from cnerta.models.networks.word_embedding import WordEmbedding
from cnerta.models.runtime.vocabulary import PADDING_ID
from cnerta.models.text.lexicon import Lexicon

__all__ = ["LatticeEncoder", "LatticeLstm", "words_at_once"]

_DIRECTIONS = 2


class _State(NamedTuple):
    """What a character leaves to those after it in an exported loop, in both directions.

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
    """What a position brings to an exported loop, in both directions; or all, along a first axis.

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


class _Found(NamedTuple):
    """Matches seen from either end of their sentences. shape of each: (2, batch, matches).

    Attributes:
        starts: First character.
        ends: One after the last.
        usable: Those that are used.
        slot: Number among the words that end at the same character.
    """

    starts: Tensor
    ends: Tensor
    usable: Tensor
    slot: Tensor


class LatticeEncoder(nn.Module):
    """Character and word embeddings under a Lattice-LSTM (the paper's Lattice-LSTM row).

    Attributes:
        width: Size of a character's representation.
        max_characters: Longest text.
    """

    def __init__(self, config: TextConfig, characters: int, lexicon: Lexicon) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, config.embedding, padding_idx=PADDING_ID)
        self.words = WordEmbedding.configured(config, lexicon)
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
            matches: Words in each text, see :mod:`cnerta.models.text.lexicon`.
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
        found = self._seen_from_both_ends(counts, matches)
        read = self._scan if torch.compiler.is_exporting() else self._read
        hidden = read(gates, word_gates, found)  # shape: (length, 2, batch, size)
        ahead, behind = hidden[:, 0].transpose(0, 1), hidden[:, 1].transpose(0, 1)
        behind = behind.gather(1, turned.expand(-1, -1, self.size))
        return torch.cat([ahead, behind], dim=2)

    def _seen_from_both_ends(self, counts: Tensor, matches: Tensor) -> _Found:
        start, end, word = matches.unbind(dim=2)
        # Seen from the other end, a word begins where it ended.
        starts = torch.stack([start, counts[:, None] - end])
        ends = torch.stack([end, counts[:, None] - start])
        back = ends - 1 - starts
        usable = (word > 0) & (back > 0) & (back < self.longest_word)
        # Words that end together take the slots of that position in turn.
        together = (ends[..., :, None] == ends[..., None, :]) & usable[..., None, :]
        slot = together.tril(diagonal=-1).sum(dim=-1)
        return _Found(starts, ends, usable & (slot < self.most_words), slot)

    def _read(self, gates: Tensor, word_gates: Tensor, found: _Found) -> Tensor:
        """All steps (equations 11 to 16 of Zhang and Yang).

        Args:
            gates: The characters' share of their own gates and of the words' gates into their
                cells. shape: (2, batch, length, 5 * size)
            word_gates: The words' share of their gates. shape: (2, batch, matches, 3 * size)
            found: The matches.

        Returns:
            Hidden states. shape: (length, 2, batch, size)
        """
        size, batch = self.size, gates.shape[1]
        plan = plan_lattice(found.starts, found.ends, found.usable, gates.shape[2])
        to_character = self.state_weight[..., : 4 * size].contiguous()
        to_word = self.state_weight[..., 4 * size :].contiguous()
        arranged = word_gates.flatten(0, 2).index_select(0, plan.words)
        beginning = torch.split(arranged, [len(b) for b in plan.began])
        cell = gates.new_zeros(_DIRECTIONS, batch, size)
        hidden: Tensor | None = None
        made: list[Tensor] = []  # cells of the words that begin at each step
        outputs = []
        of_characters, of_words = torch.split(gates, [4 * size, size], dim=3)
        into_cells = of_words.flatten(0, 1).unbind(dim=1)
        for t, own in enumerate(of_characters.unbind(dim=2)):
            if hidden is not None:
                own = own + hidden @ to_character
            i, o, f, candidate = _character_gates(own)
            alone = f * cell + i * candidate
            if len(plan.ended[t]):
                cells = torch.cat(made[plan.first[t] :], dim=1).flatten(0, 1)
                cells = cells.index_select(0, plan.cells[t])
                heard = (_ways(cells) @ self.cell_weight).flatten(0, 1)
                heard = heard + into_cells[t].index_select(0, plan.ended[t])
                weights = heard.sigmoid().exp() * plan.present[t]
                terms = torch.cat([weights * cells, weights], dim=1)
                sums = terms.new_zeros(_DIRECTIONS * batch, 2 * size)
                sums = sums.index_add(0, plan.ended[t], terms).view(_DIRECTIONS, batch, 2 * size)
                mixed = _mix(i, candidate, *torch.split(sums, size, dim=2))
                alone = torch.where(plan.any_ended[t], mixed, alone)
            cell = alone
            hidden = o * cell.tanh()
            outputs.append(hidden)
            places = plan.began[t]
            begun = _ways(hidden.flatten(0, 1).index_select(0, places))
            begun = begun @ to_word + _ways(beginning[t])
            kept = _ways(cell.flatten(0, 1).index_select(0, places))
            made.append(_word_cell(begun, kept))
        return torch.stack(outputs)

    def _scan(self, gates: Tensor, word_gates: Tensor, found: _Found) -> Tensor:
        """As :meth:`_read`, but as one loop of free length in a graph."""
        # Only exporting needs it.
        from torch._higher_order_ops.scan import scan

        def body(
            carried: tuple[Tensor, ...], step: tuple[Tensor, ...]
        ) -> tuple[tuple[Tensor, ...], Tensor]:
            left, output = self._step(_State(*carried), _Step(*step))
            return tuple(left), output

        batch, size, reach = gates.shape[1], self.size, self.longest_word - 1
        state = (
            gates.new_zeros(_DIRECTIONS, batch, 4 * size),
            gates.new_zeros(_DIRECTIONS, batch, size),
            gates.new_zeros(_DIRECTIONS, batch, reach, 4 * size),
        )
        steps = self._steps(gates, word_gates, found)
        hidden: Tensor
        _, hidden = scan(body, state, tuple(s.contiguous() for s in steps))
        return hidden

    def _steps(self, gates: Tensor, word_gates: Tensor, found: _Found) -> _Step:
        """Sort the matches to the positions where their words end. Along a first axis."""
        _, batch, length, _ = gates.shape
        slots, reach, matches = self.most_words, self.longest_word - 1, word_gates.shape[2]
        # Each slot's match, counted from 1; what belongs nowhere goes to a place past the end.
        cells = length * slots
        cell = torch.where(found.usable, (found.ends - 1) * slots + found.slot, cells)
        number = torch.arange(1, matches + 1, device=cell.device)
        table = cell.new_zeros(_DIRECTIONS, batch, cells + 1)
        table = table.scatter(2, cell, number.expand_as(cell))[..., :cells]
        present = table > 0
        rows = torch.arange(_DIRECTIONS * batch, device=cell.device).view(_DIRECTIONS, batch, 1)
        chosen = nn.functional.pad(word_gates, (0, 0, 1, 0)).flatten(0, 2)
        chosen = chosen.index_select(0, (rows * (matches + 1) + table).flatten())
        back = found.ends - 1 - found.starts
        distance = nn.functional.pad(back, (1, 0)).gather(2, table)
        places = rows * reach + torch.where(present, reach - distance, 0)
        shape = (_DIRECTIONS, batch, length, slots)
        return _Step(
            gates.permute(2, 0, 1, 3),
            chosen.view(*shape, 3 * self.size).permute(2, 0, 1, 3, 4),
            places.view(shape).permute(2, 0, 1, 3),
            present.view(shape).permute(2, 0, 1, 3),
        )

    def _step(self, state: _State, step: _Step) -> tuple[_State, Tensor]:
        """One character of each sequence. Returns state and hidden state."""
        size = self.size
        own, into = step.gates[..., : 4 * size], step.gates[..., 4 * size :]
        i, o, f, candidate = _character_gates(own + state.gates)
        past = state.window.flatten(0, 2).index_select(0, step.places.flatten())
        past = past.view(*step.places.shape, 4 * size)
        word_cell = _word_cell(step.word_gates + past[..., : 3 * size], past[..., 3 * size :])
        heard = _project(word_cell, self.cell_weight) + into[:, :, None]
        weights = heard.sigmoid().exp() * step.present[..., None]
        mixed = _mix(i, candidate, (weights * word_cell).sum(dim=2), weights.sum(dim=2))
        ended = step.present.any(dim=2, keepdim=True)
        cell = torch.where(ended, mixed, f * state.cell + i * candidate)
        hidden = o * cell.tanh()
        left = hidden @ self.state_weight
        newest = torch.cat([left[..., 4 * size :], cell], dim=2)
        window = torch.cat([state.window[:, :, 1:], newest[:, :, None]], dim=2)
        # A copy, because a loop in a graph may not give out views of one tensor.
        return _State(left[..., : 4 * size].clone(), cell, window), hidden


def _ways(rows: Tensor) -> Tensor:
    """Rows of both directions, parted. shape: (2 * n, size) -> (2, n, size)."""
    return rows.view(_DIRECTIONS, len(rows) // _DIRECTIONS, rows.shape[1])


def _character_gates(gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input, output and forget gate of characters, and candidate (Zhang and Yang, equation 11)."""
    size = gates.shape[-1] // 4
    sigmoid, tanh = torch.split(gates, [3 * size, size], dim=-1)
    i, o, f = sigmoid.sigmoid().chunk(3, dim=-1)
    return i, o, f, tanh.tanh()


def _word_cell(gates: Tensor, cell: Tensor) -> Tensor:
    """Cells of words from their gates and the cells of their first characters (13, 14)."""
    size = cell.shape[-1]
    sigmoid, tanh = torch.split(gates, [2 * size, size], dim=-1)
    i, f = sigmoid.sigmoid().chunk(2, dim=-1)
    word_cell: Tensor = f * cell + i * tanh.tanh()
    return word_cell


def _mix(i: Tensor, candidate: Tensor, words: Tensor, weights: Tensor) -> Tensor:
    """Cells of characters where words end (equations 12 and 16 of Zhang and Yang).

    Input gates, of the character and one a word and dimension, are brought to sum to one.

    Args:
        i: Input gate of the character.
        candidate: Its candidate.
        words: Sum of the words' cells by their weights.
        weights: Sum of these weights, the exponentials of the words' gates.
    """
    weight = i.exp()
    return (weight * candidate + words) / (weight + weights)


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
