"""The graphs of :mod:`cnerta.models.runtime.crf_search`.

    python -m cnerta.export.crf_graphs

writes them. They have no weights: the CRF's parameters are inputs. Rows beyond a sentence's end are
worked out like the others, and are not looked at. There must be two rows: the runtime does not take
loops that have nothing to do.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import parser

from cnerta.models.runtime.crf_search import LATTICE_FILE, SCORES_FILE

__all__ = ["crf_graphs"]

# The best score with which each character can have each tag.
_SCORES = """
<ir_version: 9, opset_import: ["" : 18]>
crf_scores (
    float[batch, length, tags] emissions, double[tags] start, double[tags, tags] to_from
) => (double[length, batch, tags] scores)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2},
 int64[1] all = {9223372036854775807}>
{
    as_doubles = Cast<to = 11>(emissions)
    by_time = Transpose<perm = [1, 0, 2]>(as_doubles)
    rows = Unsqueeze(by_time, two)
    first_row = Slice(rows, zero, one, zero)
    later_rows = Slice(rows, one, all, zero)
    first_scores = Add(first_row, start)
    scores_0 = Squeeze(first_scores, zero)
    last_scores, later_scores = Scan<
        num_scan_inputs = 1,
        body = step (double[batch, 1, tags] before, double[batch, 1, tags] row) => (
            double[batch, 1, tags] after, double[batch, 1, tags] kept
        ) {
            ways = Add(before, to_from)
            best = ReduceMax<keepdims = 0>(ways, two)
            best_row = Unsqueeze(best, one)
            after = Add(best_row, row)
            kept = Identity(after)
        }
    >(scores_0, later_rows)
    all_scores = Concat<axis = 0>(first_scores, later_scores)
    scores = Squeeze(all_scores, two)
}
"""

# Forward and backward probabilities. The second loop begins at each sentence's own end: until there
# it keeps what it began with.
_LATTICE = """
<ir_version: 9, opset_import: ["" : 18]>
crf_lattice (
    float[batch, length, tags] emissions, int64[batch] counts,
    double[tags] start, double[tags, tags] transitions, double[tags] end
) => (
    double[length, batch, tags] weights, double[length, batch, tags] forward,
    double[length, batch, tags] backward, double[length, batch] scale
)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2},
 int64[1] all = {9223372036854775807}, int64 second = {1}, int64 next = {1}>
{
    as_doubles = Cast<to = 11>(emissions)
    rows = Transpose<perm = [1, 0, 2]>(as_doubles)
    largest = ReduceMax<keepdims = 1>(rows, two)
    relative = Sub(rows, largest)
    weights = Exp(relative)
    first_weights = Slice(weights, zero, one, zero)
    later_weights = Slice(weights, one, all, zero)

    first_sums = Mul(first_weights, start)
    first_scale = ReduceSum<keepdims = 1>(first_sums, two)
    first_forward = Div(first_sums, first_scale)
    forward_0 = Squeeze(first_forward, zero)
    last_forward, later_forward, later_scale = Scan<
        num_scan_inputs = 1,
        body = go (double[batch, tags] before, double[batch, tags] weight) => (
            double[batch, tags] after, double[batch, tags] kept, double[batch, 1] total
        ) {
            moved = MatMul(before, transitions)
            weighted = Mul(moved, weight)
            total = ReduceSum<keepdims = 1>(weighted, one)
            after = Div(weighted, total)
            kept = Identity(after)
        }
    >(forward_0, later_weights)
    forward = Concat<axis = 0>(first_forward, later_forward)
    scale_columns = Concat<axis = 0>(first_scale, later_scale)
    scale = Squeeze(scale_columns, two)

    shape = Shape<start = 0, end = 1>(rows)
    length_number = Squeeze(shape, zero)
    numbers = Range(second, length_number, next)
    number_column = Unsqueeze(numbers, one)
    is_character = Less(number_column, counts)
    goes_on = Unsqueeze(is_character, two)
    to_from = Transpose<perm = [1, 0]>(transitions)
    row_shape = Shape(forward_0)
    ends = Expand(end, row_shape)
    first_backward, earlier_backward = Scan<
        num_scan_inputs = 3, scan_input_directions = [1, 1, 1], scan_output_directions = [1],
        body = go_back (
            double[batch, tags] after, double[batch, tags] weight, double[batch, 1] total,
            bool[batch, 1] on
        ) => (double[batch, tags] before, double[batch, tags] kept) {
            weighted = Mul(weight, after)
            moved = MatMul(weighted, to_from)
            scaled = Div(moved, total)
            before = Where(on, scaled, after)
            kept = Identity(before)
        }
    >(ends, later_weights, later_scale, goes_on)
    end_row = Unsqueeze(ends, zero)
    backward = Concat<axis = 0>(earlier_backward, end_row)
}
"""


def crf_graphs() -> dict[Path, onnx.ModelProto]:
    """The graphs by file, checked.

    Inputs and outputs are those of :class:`cnerta.models.runtime.crf_search.GraphSearch`.
    """
    graphs = {
        SCORES_FILE: parser.parse_model(_SCORES),
        LATTICE_FILE: parser.parse_model(_LATTICE),
    }
    for graph in graphs.values():
        onnx.checker.check_model(graph, full_check=True)
    return graphs


if __name__ == "__main__":
    for file, graph in crf_graphs().items():
        onnx.save(graph, file)
