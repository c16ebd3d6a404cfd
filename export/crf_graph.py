"""The graph ``crf_search.onnx`` of :mod:`cnerta.models.crf_search`.

    python -m cnerta.export.crf_graph

writes it. It has no weights: the CRF's parameters are inputs.
"""

from __future__ import annotations

import onnx
from onnx import parser

from cnerta.models.crf_search import GRAPH_FILE

__all__ = ["crf_search_graph"]

# Steps beyond a sentence's end leave everything as it was. One such step is added to all sentences,
# so that the loops, which begin at the second character, never have nothing to do. The first loop
# adds up scores for the best path and probabilities for the rest; the second follows the path back.
_SOURCE = """
<ir_version: 9, opset_import: ["" : 18]>
crf_search (
    float[batch, length, tags] emissions, int64[batch] counts,
    double[tags] start, double[tags, tags] transitions, double[tags] end
) => (
    int64[steps, batch] path, double[steps, batch, tags] weights,
    double[steps, batch, tags] forward, double[steps, batch, tags] backward,
    double[steps, batch] scale
)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] all_but_last = {-1},
 int64[1] all = {9223372036854775807}, int64[6] one_more = {0, 0, 0, 1, 0, 0},
 int64 first_step = {1}, int64 step = {1}>
{
    as_doubles = Cast<to = 11>(emissions)
    by_time = Transpose<perm = [1, 0, 2]>(as_doubles)
    rows = Pad(by_time, one_more)
    largest = ReduceMax<keepdims = 1>(rows, two)
    relative = Sub(rows, largest)
    weights = Exp(relative)

    row_shape = Shape<start = 0, end = 1>(rows)
    row_count = Squeeze(row_shape, zero)
    numbers = Range(first_step, row_count, step)
    number_column = Unsqueeze(numbers, one)
    is_character = Less(number_column, counts)
    goes_on = Unsqueeze(is_character, two)

    later_rows = Slice(rows, one, all, zero)
    later_weights = Slice(weights, one, all, zero)
    first_row = Slice(rows, zero, one, zero)
    first_weight = Slice(weights, zero, one, zero)
    start_weights = Exp(start)
    end_weights = Exp(end)
    transition_weights = Exp(transitions)

    first_scores = Add(first_row, start)
    scores_0 = Squeeze(first_scores, zero)
    first_forward = Mul(first_weight, start_weights)
    first_scale = ReduceSum<keepdims = 1>(first_forward, two)
    forward_first = Div(first_forward, first_scale)
    forward_0 = Squeeze(forward_first, zero)

    last_scores, last_forward, later_scores, later_forward, later_scale = Scan<
        num_scan_inputs = 3, body = go_forward (
            double[batch, tags] s, double[batch, tags] f,
            double[batch, tags] row, double[batch, tags] weight, bool[batch, 1] on
        ) => (
            double[batch, tags] s_next, double[batch, tags] f_next,
            double[batch, tags] s_kept, double[batch, tags] f_kept, double[batch, 1] sum_kept
        ) {
            s_column = Unsqueeze(s, two)
            candidates = Add(s_column, transitions)
            best = ReduceMax<keepdims = 0>(candidates, one)
            s_new = Add(best, row)
            s_next = Where(on, s_new, s)
            s_kept = Identity(s_next)
            f_moved = MatMul(f, transition_weights)
            f_new = Mul(f_moved, weight)
            sum_kept = ReduceSum<keepdims = 1>(f_new, one)
            f_scaled = Div(f_new, sum_kept)
            f_next = Where(on, f_scaled, f)
            f_kept = Identity(f_next)
        }
    >(scores_0, forward_0, later_rows, later_weights, goes_on)
    scores = Concat<axis = 0>(first_scores, later_scores)
    forward = Concat<axis = 0>(forward_first, later_forward)
    scale_columns = Concat<axis = 0>(first_scale, later_scale)
    scale = Squeeze(scale_columns, two)

    ended = Add(last_scores, end)
    last_tag = ArgMax<axis = 1, keepdims = 0>(ended)
    end_row = Mul(last_forward, end_weights)
    end_sum = ReduceSum<keepdims = 1>(end_row, one)
    backward_last = Div(end_weights, end_sum)
    earlier_scores = Slice(scores, zero, all_but_last, zero)
    to_from = Transpose<perm = [1, 0]>(transitions)
    weights_to_from = Exp(to_from)
    first_tag, first_backward, earlier_tags, earlier_backward = Scan<
        num_scan_inputs = 4, scan_input_directions = [1, 1, 1, 1],
        scan_output_directions = [1, 1], body = go_back (
            int64[batch] tag, double[batch, tags] b, double[batch, tags] before,
            double[batch, tags] weight, double[batch, 1] sum, bool[batch, 1] on
        ) => (
            int64[batch] tag_next, double[batch, tags] b_next,
            int64[batch] tag_kept, double[batch, tags] b_kept
        ) {
            into = Gather<axis = 0>(to_from, tag)
            ways = Add(before, into)
            origin = ArgMax<axis = 1, keepdims = 0>(ways)
            on_row = Squeeze(on, one)
            tag_next = Where(on_row, origin, tag)
            tag_kept = Identity(tag_next)
            b_weighted = Mul(weight, b)
            b_moved = MatMul(b_weighted, weights_to_from)
            b_scaled = Div(b_moved, sum)
            b_next = Where(on, b_scaled, b)
            b_kept = Identity(b_next)
        }
    >(last_tag, backward_last, earlier_scores, later_weights, later_scale, goes_on)
    last_tag_row = Unsqueeze(last_tag, zero)
    path = Concat<axis = 0>(earlier_tags, last_tag_row)
    backward_row = Unsqueeze(backward_last, zero)
    backward = Concat<axis = 0>(earlier_backward, backward_row)
}
"""


def crf_search_graph() -> onnx.ModelProto:
    """The graph, checked.

    Inputs and outputs are those of :class:`cnerta.models.crf_search.GraphSearch`; it gives one step
    more than there are characters.
    """
    model = parser.parse_model(_SOURCE)
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    onnx.save(crf_search_graph(), GRAPH_FILE)
