"""Lattice-LSTM: an LSTM over characters whose cells also take in the words that end at them.

Zhang and Yang (ACL 2018), section 3.3. Every word of a lexicon that is found in the text has a cell
that starts from the state of its first character and reaches the cell of its last one through a
gate of its own, so that the network sees every way to divide the text and need not choose one.

Batched: one step a character position, for all sentences and both directions at once. A word's
cell needs the state of its first character and nothing later, so a step makes the cells of all
words that begin there, and takes those of all that end there from the cells that were made before.

An exported graph does the same in one loop (:mod:`cnerta.models.networks.lattice.loop`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cnerta.models.config import TextConfig
from cnerta.models.networks.bilstm import MAX_CHARACTERS
from cnerta.models.networks.lattice.cells import (
    DIRECTIONS,
    FoundWords,
    by_direction,
    character_gates,
    mix,
    project,
    word_cell,
)
from cnerta.models.networks.lattice.loop import LatticeLoop
from cnerta.models.networks.lattice.plan import plan_lattice
from cnerta.models.networks.word_embedding import WordEmbedding
from cnerta.models.runtime.vocabulary import PADDING_ID
from cnerta.models.text.lexicon import Lexicon

__all__ = ["LatticeEncoder", "LatticeLstm", "words_at_once"]


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
        size = hidden // DIRECTIONS
        self.size = size
        # For each direction, in the paper's names: what W^c and W^l do to x^c, W^w to x^w, W^c and
        # W^w to h^c, and W^l to c^w.
        self.character_weight = nn.Parameter(torch.empty(DIRECTIONS, inputs, 5 * size))
        self.character_bias = nn.Parameter(torch.empty(DIRECTIONS, 1, 5 * size))
        self.word_weight = nn.Parameter(torch.empty(DIRECTIONS, word_inputs, 3 * size))
        self.word_bias = nn.Parameter(torch.empty(DIRECTIONS, 1, 3 * size))
        self.state_weight = nn.Parameter(torch.empty(DIRECTIONS, size, 7 * size))
        self.cell_weight = nn.Parameter(torch.empty(DIRECTIONS, size, size))
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
        gates = project(both, self.character_weight, self.character_bias)
        word_gates = project(words.expand(DIRECTIONS, -1, -1, -1), self.word_weight, self.word_bias)
        found = self._seen_from_both_ends(counts, matches)
        # shape: (length, 2, batch, size)
        if torch.compiler.is_exporting():
            loop = LatticeLoop(
                self.state_weight, self.cell_weight, self.most_words, self.longest_word
            )
            hidden = loop.run(gates, word_gates, found)
        else:
            hidden = self._read(gates, word_gates, found)
        ahead, behind = hidden[:, 0].transpose(0, 1), hidden[:, 1].transpose(0, 1)
        behind = behind.gather(1, turned.expand(-1, -1, self.size))
        return torch.cat([ahead, behind], dim=2)

    def _seen_from_both_ends(self, counts: Tensor, matches: Tensor) -> FoundWords:
        start, end, word = matches.unbind(dim=2)
        # Seen from the other end, a word begins where it ended.
        starts = torch.stack([start, counts[:, None] - end])
        ends = torch.stack([end, counts[:, None] - start])
        back = ends - 1 - starts
        usable = (word > 0) & (back > 0) & (back < self.longest_word)
        # Words that end together take the slots of that position in turn.
        together = (ends[..., :, None] == ends[..., None, :]) & usable[..., None, :]
        slot = together.tril(diagonal=-1).sum(dim=-1)
        return FoundWords(starts, ends, usable & (slot < self.most_words), slot)

    def _read(self, gates: Tensor, word_gates: Tensor, found: FoundWords) -> Tensor:
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
        cell = gates.new_zeros(DIRECTIONS, batch, size)
        hidden: Tensor | None = None
        made: list[Tensor] = []  # cells of the words that begin at each step
        outputs = []
        of_characters, of_words = torch.split(gates, [4 * size, size], dim=3)
        into_cells = of_words.flatten(0, 1).unbind(dim=1)
        for t, own in enumerate(of_characters.unbind(dim=2)):
            if hidden is not None:
                own = own + hidden @ to_character
            i, o, f, candidate = character_gates(own)
            alone = f * cell + i * candidate
            if len(plan.ended[t]):
                cells = torch.cat(made[plan.first[t] :], dim=1).flatten(0, 1)
                cells = cells.index_select(0, plan.cells[t])
                gate = (by_direction(cells) @ self.cell_weight).flatten(0, 1)
                gate = gate + into_cells[t].index_select(0, plan.ended[t])
                weights = gate.sigmoid().exp() * plan.present[t]
                terms = torch.cat([weights * cells, weights], dim=1)
                sums = terms.new_zeros(DIRECTIONS * batch, 2 * size)
                sums = sums.index_add(0, plan.ended[t], terms).view(DIRECTIONS, batch, 2 * size)
                mixed = mix(i, candidate, *torch.split(sums, size, dim=2))
                alone = torch.where(plan.any_ended[t], mixed, alone)
            cell = alone
            hidden = o * cell.tanh()
            outputs.append(hidden)
            places = plan.began[t]
            begun = by_direction(hidden.flatten(0, 1).index_select(0, places))
            begun = begun @ to_word + by_direction(beginning[t])
            kept = by_direction(cell.flatten(0, 1).index_select(0, places))
            made.append(word_cell(begun, kept))
        return torch.stack(outputs)
