from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from cnerta.export.graphs import TaggerGraph, write_graph  # noqa: E402
from cnerta.export.parity import check_parity  # noqa: E402
from cnerta.models.config import (  # noqa: E402
    AcousticConfig,
    FusionConfig,
    ModelConfig,
    TextConfig,
)
from cnerta.models.networks.lattice.encoder import LatticeLstm, words_at_once  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402
from cnerta.models.text.lexicon import Lexicon, pad_matches  # noqa: E402

Word = tuple[int, int, int]
LONGEST, MOST = 5, 3


def network(inputs: int = 4, word_inputs: int = 3, hidden: int = 10) -> LatticeLstm:
    torch.manual_seed(0)
    made = LatticeLstm(inputs, word_inputs, hidden, most_words=MOST, longest_word=LONGEST)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.7)
    return made.double()


def one_way(
    lattice: LatticeLstm, way: int, x: Tensor, words: list[tuple[int, int, Tensor]]
) -> Tensor:
    """Equations 10 to 16 of Zhang and Yang (2018), a character and a word at a time.

    ``words`` are (first character, last character, embedding).
    """
    n = lattice.size
    wi, wo, wf, wc, wl = lattice.character_weight[way].split(n, dim=1)
    bi, bo, bf, bc, bl = lattice.character_bias[way, 0].split(n)
    xi, xf, xc = lattice.word_weight[way].split(n, dim=1)
    yi, yf, yc = lattice.word_bias[way, 0].split(n)
    ui, uo, uf, uc, vi, vf, vc = lattice.state_weight[way].split(n, dim=1)
    hidden, cells = [], []
    h, c = x.new_zeros(n), x.new_zeros(n)
    for e in range(len(x)):
        i = torch.sigmoid(x[e] @ wi + h @ ui + bi)
        o = torch.sigmoid(x[e] @ wo + h @ uo + bo)
        f = torch.sigmoid(x[e] @ wf + h @ uf + bf)
        candidate = torch.tanh(x[e] @ wc + h @ uc + bc)
        gates, word_cells = [], []
        for b, last, embedding in words:
            if last != e:
                continue
            word_i = torch.sigmoid(embedding @ xi + hidden[b] @ vi + yi)
            word_f = torch.sigmoid(embedding @ xf + hidden[b] @ vf + yf)
            word_candidate = torch.tanh(embedding @ xc + hidden[b] @ vc + yc)
            word_cell = word_f * cells[b] + word_i * word_candidate
            gates.append(torch.sigmoid(x[e] @ wl + word_cell @ lattice.cell_weight[way] + bl))
            word_cells.append(word_cell)
        if gates:
            total = torch.exp(i) + sum(torch.exp(g) for g in gates)
            c = torch.exp(i) / total * candidate
            for g, word_cell in zip(gates, word_cells, strict=True):
                c = c + torch.exp(g) / total * word_cell
        else:
            c = f * c + i * candidate
        h = o * torch.tanh(c)
        hidden.append(h)
        cells.append(c)
    return torch.stack(hidden)


def reference(lattice: LatticeLstm, x: Tensor, embeddings: Tensor, words: list[Word]) -> Tensor:
    """One sentence, both directions."""
    n = len(x)
    kept = [(s, e, w) for s, e, w in words if w and e - s > 1]
    ahead = one_way(lattice, 0, x, [(s, e - 1, embeddings[w]) for s, e, w in kept])
    turned = [(n - e, n - 1 - s, embeddings[w]) for s, e, w in kept]
    behind = one_way(lattice, 1, x.flip(0), turned).flip(0)
    return torch.cat([ahead, behind], dim=1)


def random_words(length: int, generator: np.random.Generator) -> list[Word]:
    """Words as a lexicon finds them: at most MOST end or begin at a character."""
    words: list[Word] = []
    for start in range(length):
        for end in range(start + 1, min(length, start + LONGEST) + 1):
            ends = sum(w[1] == end for w in words)
            starts = sum(w[0] == start for w in words)
            if generator.random() < 0.35 and max(ends, starts) < MOST:
                words.append((start, end, int(generator.integers(1, 9))))
    return sorted(words, key=lambda w: (w[1], w[0]))


def pad_words(rows: list[list[Word]], width: int = 0) -> Tensor:
    table = torch.zeros(len(rows), max(width, *map(len, rows)), 3, dtype=torch.int64)
    for row, words in zip(table, rows, strict=True):
        row[: len(words)] = torch.tensor(words, dtype=torch.int64).view(-1, 3)
    return table


def batch(
    counts: list[int], seed: int, inputs: int = 4, word_inputs: int = 3
) -> tuple[Tensor, Tensor, list[list[Word]]]:
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    x = torch.randn(len(counts), max(counts), inputs, dtype=torch.float64)
    embeddings = torch.randn(9, word_inputs, dtype=torch.float64)
    return x, embeddings, [random_words(n, generator) for n in counts]


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_papers_lattice_and_so_are_its_gradients(seed: int) -> None:
    lattice = network()
    counts = [9, 1, 4, 12][: 1 + seed]
    x, embeddings, words = batch(counts, seed)
    assert seed == 0 or any(words)
    matches = pad_words(words)
    x.requires_grad_()
    embeddings.requires_grad_()
    found = lattice(x, torch.tensor(counts), embeddings[matches[..., 2]], matches)
    weights = torch.randn_like(found)
    got, want = 0.0, 0.0
    for i, n in enumerate(counts):
        expected = reference(lattice, x[i, :n], embeddings, words[i])
        torch.testing.assert_close(found[i, :n], expected)
        got += (found[i, :n] * weights[i, :n]).sum()
        want += (expected * weights[i, :n]).sum()
    leaves = [x, embeddings, *lattice.parameters()]
    ours = torch.autograd.grad(got, leaves, allow_unused=True)
    theirs = torch.autograd.grad(want, leaves, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            torch.zeros(()).double() if a is None else a,
            torch.zeros_like(torch.zeros(()).double() if a is None else a) if b is None else b,
        )


def test_without_words_it_is_an_lstm() -> None:
    lattice = network()
    x, _, _ = batch([6, 3], 0)
    n = lattice.size
    theirs = nn.LSTM(4, n, batch_first=True, bidirectional=True).double()
    # Torch's order of gates is i, f, candidate, o.
    order = torch.cat([torch.arange(n) + n * k for k in (0, 2, 3, 1)])
    with torch.no_grad():
        for way, suffix in enumerate(("", "_reverse")):
            getattr(theirs, f"weight_ih_l0{suffix}").copy_(lattice.character_weight[way].T[order])
            getattr(theirs, f"weight_hh_l0{suffix}").copy_(lattice.state_weight[way].T[order])
            getattr(theirs, f"bias_ih_l0{suffix}").copy_(lattice.character_bias[way, 0, order])
            getattr(theirs, f"bias_hh_l0{suffix}").zero_()
    counts = torch.tensor([6, 3])
    none = torch.zeros(2, 0, 3, dtype=torch.int64)
    found = lattice(x, counts, x.new_zeros(2, 0, 3), none)
    packed = nn.utils.rnn.pack_padded_sequence(x, counts, batch_first=True)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1, :3], expected[1, :3])
    # Padding and words of one character say nothing.
    padding = torch.tensor([[0, 0, 0], [2, 3, 5]]).expand(2, 2, 3)
    torch.testing.assert_close(lattice(x, counts, torch.randn(2, 2, 3).double(), padding), found)


def test_padding_and_batch_mates_change_nothing() -> None:
    lattice = network()
    counts = [7, 3, 10]
    x, embeddings, words = batch(counts, 5)
    matches = pad_words(words, width=60)
    wide = nn.functional.pad(x, (0, 0, 0, 4), value=3.0)
    together = lattice(wide, torch.tensor(counts), embeddings[matches[..., 2]], matches)
    for i, n in enumerate(counts):
        own = pad_words([words[i]])
        alone = lattice(x[i : i + 1, :n], torch.tensor([n]), embeddings[own[..., 2]], own)
        torch.testing.assert_close(together[i, :n], alone[0])


def test_a_match_beyond_what_the_lexicon_has_is_ignored() -> None:
    lattice = network()
    x, embeddings, _ = batch([8], 1)
    usual = [(4, 6, 1), (3, 6, 2), (2, 6, 3)]
    beyond = [(0, 6, 4), (1, 6, 5)]  # six characters; a fourth word that ends there
    counts = torch.tensor([8])
    found, expected = (
        lattice(x, counts, embeddings[m[..., 2]], m)
        for m in (pad_words([[*usual, *beyond]]), pad_words([usual]))
    )
    torch.testing.assert_close(found[..., :5], expected[..., :5])


@settings(max_examples=60)
@given(st.lists(st.text("ab", min_size=1, max_size=4), unique=True, max_size=12))
def test_how_many_words_meet_is_known_from_the_lexicon(words: list[str]) -> None:
    lexicon = Lexicon(tuple(words), (1,) * len(words))
    most = 0
    # Every text of six characters over the alphabet: longer than any two words that overlap.
    for text in map("".join, product("ab", repeat=6)):
        matches = [(s, e) for s, e, _ in lexicon.match(text).tolist() if e - s > 1]
        for place in range(7):
            most = max(most, sum(e == place for _, e in matches))
            most = max(most, sum(s == place for s, _ in matches))
    assert words_at_once(words) == most


TEXTS = ["南京市长江大桥", "江", "大桥的市长", "长江大桥的南京市长的大桥的江大桥"]
LEXICON = Lexicon(
    ("南京", "南京市", "市长", "长江", "大桥", "长江大桥", "江", "江大桥", "无锡"),
    (4, 9, 2, 3, 1, 5, 7, 0, 0),
)


def test_an_exported_lattice_reads_texts_of_any_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vocabulary = Vocabulary.build("".join(TEXTS))
    config = ModelConfig(
        acoustic=AcousticConfig(
            mel_bins=40, conv_channels=2, width=8, layers=1, heads=1, feed_forward=8
        ),
        text=TextConfig("lattice", embedding=6, word_embedding=5, hidden=8),
        fusion=FusionConfig(width=8, heads=1, feed_forward=8),
    )
    model = SpeechTagger(
        config, vocabulary, LabelScheme.flat(["LOC", "PER"]), lexicon=LEXICON
    ).eval()
    for parameter in model.text.parameters():
        nn.init.normal_(parameter, std=0.7)  # so that words and their order matter
    graph, path = TaggerGraph(model), tmp_path / "tagger.onnx"
    generator = torch.Generator().manual_seed(1)
    write_graph(graph, graph.example(3, 7, 20, generator), path)
    sizes = [(1, 1, 1), (1, 40, 3), (2, 1, 200), (9, 5, 1)]
    check_parity(graph, path, [graph.example(*s, generator) for s in sizes])

    characters = torch.zeros(len(TEXTS), max(map(len, TEXTS)), dtype=torch.int64)
    for row, text in zip(characters, TEXTS, strict=True):
        row[: len(text)] = torch.from_numpy(vocabulary.encode(text))
    matches = torch.from_numpy(pad_matches([LEXICON.match(t) for t in TEXTS]))
    counts = torch.tensor(list(map(len, TEXTS)))
    silent = (torch.zeros(4, 1, 8), torch.zeros(4, dtype=torch.int64))
    inputs = (characters, counts, *silent, matches)
    assert check_parity(graph, path, [inputs]) < 1e-4
    with torch.no_grad():
        known = model(*inputs).emissions
        unknown = model(*inputs[:-1], torch.zeros_like(matches)).emissions
    assert not torch.allclose(known, unknown, atol=1e-2), "words matter"
