from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from cnerta.models.lattice import LatticeLstm  # noqa: E402

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


class Graph(nn.Module):
    def __init__(self, lattice: LatticeLstm) -> None:
        super().__init__()
        self.lattice = lattice

    def forward(self, x: Tensor, counts: Tensor, words: Tensor, matches: Tensor) -> Tensor:
        encoded: Tensor = self.lattice(x, counts, words, matches)
        return encoded


def test_the_exported_loop_computes_the_same_at_any_length(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = Graph(network().float()).eval()
    names = ["x", "counts", "words", "matches"]
    free = {n: torch.export.Dim(n, min=1) for n in ("batch", "length", "found")}
    example, embeddings, words = batch([7, 4, 2], 0)
    matches = pad_words(words)
    with torch.no_grad():
        torch.onnx.export(
            graph,
            (
                example.float(),
                torch.tensor([7, 4, 2]),
                embeddings[matches[..., 2]].float(),
                matches,
            ),
            str(tmp_path / "lattice.onnx"),
            input_names=names,
            output_names=["y"],
            dynamic_shapes=(
                {0: free["batch"], 1: free["length"]},
                {0: free["batch"]},
                {0: free["batch"], 1: free["found"]},
                {0: free["batch"], 1: free["found"]},
            ),
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(tmp_path / "lattice.onnx"))
    for seed, counts in enumerate(([1], [2, 1], [5, 31], [40, 3, 17, 9])):
        x, embeddings, words = batch(counts, seed)
        matches = pad_words(words, width=1)
        inputs = (
            x.float(), torch.tensor(counts), embeddings[matches[..., 2]].float(), matches
        )  # fmt: skip
        with torch.no_grad():
            expected = graph(*inputs).numpy()
        (found,) = session.run(None, {n: v.numpy() for n, v in zip(names, inputs, strict=True)})
        np.testing.assert_allclose(found, expected, atol=1e-5)
