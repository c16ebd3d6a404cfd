from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from cnerta.models.config import AcousticConfig  # noqa: E402
from cnerta.models.networks.acoustic_encoder import AcousticEncoder  # noqa: E402
from cnerta.models.networks.bilstm import BiLstm  # noqa: E402
from cnerta.models.networks.crf import ConstrainedCrf  # noqa: E402
from cnerta.models.networks.ctc import CtcHead, ctc_loss  # noqa: E402
from cnerta.models.networks.filterbank import FilterBank  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme, Span  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402

SMALL = AcousticConfig(
    mel_bins=40, conv_channels=4, width=16, layers=3, heads=2, feed_forward=32, left_frames=7
)


@pytest.mark.parametrize("mel_bins", [40, 80])
def test_filter_bank_against_kaldi(mel_bins: int) -> None:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(16_000) / 16_000
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * time) + 0.1
    noise = 0.1 * torch.randn(16_000, generator=generator)
    quiet = 1e-4 * torch.randn(16_000, generator=generator)
    for samples in (tone, noise, quiet):
        found = FilterBank(mel_bins).energies(samples[None])[0]
        expected = kaldi.fbank(samples[None] * 32768, num_mel_bins=mel_bins, dither=0.0)
        # In log energy; single precision limits the windows of a pure tone between its harmonics.
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0.0)
        assert float((found - expected).abs().mean()) < 1e-3


@settings(max_examples=15)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 1000))
def test_chunks_equal_the_masked_whole(chunk: int, frames: int, seed: int) -> None:
    torch.manual_seed(seed)
    encoder = AcousticEncoder(SMALL).eval()
    samples = 0.1 * torch.randn(2, 640 * frames)
    with torch.no_grad():
        whole, counts = encoder(samples, torch.tensor([640 * frames] * 2), chunk)
        chunked = _stream(encoder, samples, chunk)
    assert counts.tolist() == [frames, frames]
    torch.testing.assert_close(chunked, whole, atol=1e-4, rtol=1e-4)


def test_a_late_frame_is_computed_like_an_early_one() -> None:
    # The state has no clock in it: the same window after other history gives the same frames.
    torch.manual_seed(0)
    encoder = AcousticEncoder(SMALL).eval()
    history = 0.1 * torch.randn(1, 640 * 60)
    window = 0.1 * torch.randn(1, 640 * 40)
    with torch.no_grad():
        early = _stream(encoder, window, 4)
        late = _stream(encoder, torch.cat([history, window], dim=1), 4)
    reach = SMALL.layers * (SMALL.left_frames + 4)
    torch.testing.assert_close(late[:, 60 + reach :], early[:, reach:], atol=1e-4, rtol=1e-4)


def _stream(
    encoder: AcousticEncoder, samples: torch.Tensor, chunk: int, began: int = 0
) -> torch.Tensor:
    g, batch = encoder.geometry, len(samples)
    carry = torch.zeros(batch, g.carry_samples)
    cache = torch.zeros(g.layers, 2, batch, g.heads, g.left_frames, g.width // g.heads)
    position = torch.full((batch,), began)
    pieces = []
    for start in range(0, samples.shape[1], 640 * chunk):
        piece = samples[:, start : start + 640 * chunk]
        out, carry, new = encoder.forward_chunk(piece, carry, position, *cache.flatten(0, 1))
        for i in range(out.shape[1]):
            cache[:, :, :, :, (int(position[0]) + i) % g.left_frames] = new[:, :, :, :, i]
        position = position + out.shape[1]
        pieces.append(out)
    return torch.cat(pieces, dim=1)


def test_a_frame_of_the_tenth_year_is_computed_like_an_early_one() -> None:
    # Angles are exact at any position; in single precision they would be noise by then.
    torch.manual_seed(0)
    encoder = AcousticEncoder(SMALL).eval()
    samples = 0.1 * torch.randn(1, 640 * 60)
    reach = SMALL.layers * (SMALL.left_frames + 4)
    began = 10 * 365 * 24 * 3600 * 25
    with torch.no_grad():
        early, late = (_stream(encoder, samples, 4, n) for n in (0, began))
    torch.testing.assert_close(late[:, reach:], early[:, reach:], atol=1e-4, rtol=1e-4)


def test_padding_does_not_change_an_utterance() -> None:
    torch.manual_seed(0)
    encoder = AcousticEncoder(SMALL).eval()
    samples = 0.1 * torch.randn(1, 640 * 9)
    padded = torch.nn.functional.pad(samples, (0, 640 * 11))
    count = torch.tensor([640 * 9])
    with torch.no_grad():
        for chunk in (None, 4):
            alone, _ = encoder(samples, count, chunk)
            filled, _ = encoder(padded, count, chunk)
            torch.testing.assert_close(filled[:, :9], alone, atol=1e-5, rtol=1e-5)
            assert bool(torch.isfinite(filled).all())


def test_an_utterance_without_audio_is_no_nan_beside_one_that_has_some() -> None:
    encoder = AcousticEncoder(SMALL).eval()
    samples = torch.zeros(2, 640 * 5)
    samples[0] = 0.1 * torch.randn(640 * 5)
    with torch.no_grad():
        for chunk in (None, 2):
            frames, counts = encoder(samples, torch.tensor([640 * 5, 0]), chunk)
            assert bool(torch.isfinite(frames).all())
            assert counts.tolist() == [5, 0]


def test_full_context_hears_what_comes_later() -> None:
    torch.manual_seed(0)
    encoder = AcousticEncoder(SMALL).eval()
    samples = 0.1 * torch.randn(1, 640 * 30)
    changed = samples.clone()
    changed[:, 640 * 28 :] = 0
    count = torch.tensor([640 * 30])
    with torch.no_grad():
        for chunk, is_heard in ((None, True), (4, False)):
            first, other = (encoder(s, count, chunk)[0][0, 0] for s in (samples, changed))
            assert torch.allclose(first, other, atol=1e-6) != is_heard


def test_bilstm_equals_a_packed_bidirectional_lstm() -> None:
    torch.manual_seed(0)
    ours = BiLstm(5, 8)
    theirs = torch.nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    for name, value in ours.forwards.named_parameters():
        getattr(theirs, name).data.copy_(value)
    for name, value in ours.backwards.named_parameters():
        getattr(theirs, f"{name}_reverse").data.copy_(value)
    x, counts = torch.randn(3, 6, 5), torch.tensor([6, 2, 4])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, counts, True, enforce_sorted=False)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], True)
    found = ours(x, counts)
    for i, n in enumerate(counts.tolist()):
        torch.testing.assert_close(found[i, :n], expected[i, :n])


def head(tied: bool) -> tuple[CtcHead, Vocabulary]:
    torch.manual_seed(0)
    readings = {"长": ["chang2", "zhang3"], "江": ["jiang1"], "常": ["chang2"], "市": ["shi4"]}
    vocabulary = Vocabulary.build("长江常市", readings)
    made = CtcHead(vocabulary, 6, tied=tied)
    torch.nn.init.normal_(made.own.weight)
    return made, vocabulary


@pytest.mark.parametrize("tied", [True, False])
def test_masked_ctc_equals_the_masked_whole_vocabulary(tied: bool) -> None:
    # Equation 2: the soft-max over the whole vocabulary with all other symbols struck out.
    ctc, vocabulary = head(tied)
    frames = torch.randn(1, 5, 6)
    text = "长江长市"
    found = ctc(frames, torch.from_numpy(vocabulary.encode(text))[None])[0]
    everything = ctc.all_units(frames)[0].exp()
    used = {u for c in text for u in vocabulary.readings[vocabulary.characters.index(c)]}
    total = everything[:, 0] + sum(everything[:, 1 + u] for u in used)
    torch.testing.assert_close(found[:, 0].exp(), everything[:, 0] / total)
    for position, character in enumerate(text):
        own = vocabulary.readings[vocabulary.characters.index(character)]
        expected = sum(everything[:, 1 + u] for u in own) / total
        torch.testing.assert_close(found[:, 1 + position].exp(), expected)


def test_padding_characters_change_nothing_and_say_nothing() -> None:
    ctc, vocabulary = head(True)
    frames = torch.randn(1, 5, 6)
    ids = torch.from_numpy(vocabulary.encode("长江"))[None]
    alone = ctc(frames, ids)
    padded = ctc(frames, torch.nn.functional.pad(ids, (0, 3)))
    torch.testing.assert_close(padded[:, :, :3], alone)
    assert padded[:, :, 3:].max().item() < -1000


def test_ctc_loss_against_enumeration_with_shared_columns() -> None:
    # Columns 1 and 3 are the same symbol, columns do not sum to one: what masked CTC gives.
    torch.manual_seed(0)
    scores = torch.randn(1, 5, 4, dtype=torch.float64)
    scores[:, :, 3] = scores[:, :, 1]
    scores.requires_grad_()
    targets = torch.tensor([[1, 2, 1]])

    total = torch.zeros((), dtype=torch.float64)
    for path in product(range(4), repeat=5):
        if 3 in path:
            continue
        symbols = [p for i, p in enumerate(path) if p and (i == 0 or p != path[i - 1])]
        if symbols == [1, 2, 1]:
            total = total + scores[0, torch.arange(5), torch.tensor(path)].sum().exp()
    (expected_gradient,) = torch.autograd.grad(-total.log(), scores)

    loss = ctc_loss(scores, targets, torch.tensor([5]), torch.tensor([3]))
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    torch.testing.assert_close(loss[0], -total.log())
    torch.testing.assert_close(gradient, expected_gradient)


def test_ctc_loss_of_an_impossible_utterance_is_nothing() -> None:
    scores = torch.randn(2, 4, 3).log_softmax(dim=2).requires_grad_()
    targets = torch.tensor([[1, 1, 1], [1, 2, 1]])
    loss = ctc_loss(scores, targets, torch.tensor([4, 4]), torch.tensor([3, 3]))
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert loss[0] == 0
    assert loss[1] > 0
    assert gradient[0].abs().max() == 0
    assert gradient[1].abs().max() > 0


def test_crf_likelihood_is_normalised_over_the_allowed_sequences() -> None:
    torch.manual_seed(0)
    scheme = LabelScheme.nested([([Span(0, 3, "A"), Span(0, 2, "B")], 3)])
    crf = ConstrainedCrf(scheme)
    emissions = torch.randn(1, 3, len(scheme))
    likelihoods = {
        path: float(crf(emissions, torch.tensor([path])).detach().exp())
        for path in product(range(len(scheme)), repeat=3)
    }
    starts, ends = scheme.allowed_starts(), scheme.allowed_ends()
    allowed = scheme.allowed_transitions()
    legal = {
        p
        for p in likelihoods
        if starts[p[0]] and ends[p[-1]] and allowed[p[0], p[1]] and allowed[p[1], p[2]]
    }
    assert sum(likelihoods[p] for p in legal) == pytest.approx(1.0, abs=1e-4)
    assert max(v for p, v in likelihoods.items() if p not in legal) < 1e-6


def test_without_audio_the_frames_do_not_matter(tiny_model: SpeechTagger) -> None:
    ids = torch.from_numpy(tiny_model.vocabulary.encode("南京市长江大桥"))[None]
    counts, none = torch.tensor([7]), torch.tensor([0])
    with torch.no_grad():
        first = tiny_model(ids, counts, torch.zeros(1, 1, 16), none)
        other = tiny_model(ids, counts, torch.randn(1, 30, 16), none)
        heard = tiny_model(ids, counts, torch.randn(1, 30, 16), torch.tensor([30]))
    torch.testing.assert_close(first.emissions, other.emissions)
    assert not torch.allclose(first.emissions, heard.emissions)


def test_batch_mates_do_not_change_an_answer(tiny_model: SpeechTagger) -> None:
    texts = ["南京市长江大桥", "北京", "李明说"]
    ids = [torch.from_numpy(tiny_model.vocabulary.encode(t)) for t in texts]
    frames = [torch.randn(n, 16) for n in (30, 8, 12)]
    with torch.no_grad():
        together = tiny_model(
            torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
            torch.tensor([len(i) for i in ids]),
            torch.nn.utils.rnn.pad_sequence(frames, batch_first=True),
            torch.tensor([len(f) for f in frames]),
        )
        for i, (own, audio) in enumerate(zip(ids, frames, strict=True)):
            alone = tiny_model(
                own[None], torch.tensor([len(own)]), audio[None], torch.tensor([len(audio)])
            )
            torch.testing.assert_close(
                together.emissions[i, : len(own)], alone.emissions[0], atol=1e-5, rtol=1e-5
            )
            torch.testing.assert_close(
                together.log_probabilities[i, : len(audio), : 1 + len(own)],
                alone.log_probabilities[0],
                atol=1e-5,
                rtol=1e-5,
            )


def test_reading_table_fits_the_vocabulary() -> None:
    _, vocabulary = head(True)
    table = vocabulary.reading_table()
    assert table.shape == (len(vocabulary), 2)
    long = vocabulary.encode("长")[0]
    assert [vocabulary.units[u] for u in table[long]] == ["chang2", "zhang3"]
    assert np.all(table[0] == -1)
