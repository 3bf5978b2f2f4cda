"""Floating-point operations of the matrix products that a training step cannot do without, from config.json.

A product of [m, k] by [k, n] counts 2 m n k forward and twice that backward (one product for each operand's gradient).
Not counted, because not needed: the gradient of the pixels; rows of the last decoder layer, of the head and of its
attention that predict no response token; attention to later tokens; the last token of a sequence, which predicts nothing;
more than one copy of a beginning that all sequences share. Recomputation is not counted either: it is a choice of the implementation.
"""


def windows(rows, cols, side):
    """Merged tokens in each attention window of an image of rows x cols merged tokens."""
    cut = lambda n: [min(side, n - i) for i in range(0, n, side)]
    return [r * c for r in cut(rows) for c in cut(cols)]


def vision(config, rows, cols):
    """Forward operations for one image of rows x cols merged tokens, and those of them in the patch embedding."""
    v = config["vision_config"]
    merge = v["spatial_merge_size"] ** 2
    width, inner, patches = v["hidden_size"], v["intermediate_size"], rows * cols * merge
    side = v["window_size"] // v["patch_size"] // v["spatial_merge_size"]
    embed = 2 * patches * v["in_chans"] * v["temporal_patch_size"] * v["patch_size"] ** 2 * width
    dense = 2 * patches * (4 * width * width + 3 * width * inner)
    pairs_windowed = sum((merge * n) ** 2 for n in windows(rows, cols, side))
    full = len(v["fullatt_block_indexes"])
    attention = 4 * width * (full * patches**2 + (v["depth"] - full) * pairs_windowed)
    merged = 2 * rows * cols * merge * width * (merge * width + v["out_hidden_size"])
    return embed + v["depth"] * dense + attention + merged, embed


def decoder(config, length, response, shared=0, batch=1):
    """Forward operations for `batch` sequences of `length` tokens whose last `response` are predicted and whose first
    `shared` are the same in all of them."""
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    kv_width = width // heads * kv_heads
    rows = length - 1

    def layer(first):
        """One layer of one sequence whose results are wanted from row `first` on; keys and values of all rows from `shared` on."""
        keys_values = 2 * (rows - shared) * width * 2 * kv_width
        per_row = 2 * (rows - first) * (2 * width * width + 3 * width * inner)
        return keys_values + per_row + 4 * width * sum(range(first + 1, rows + 1))

    # The shared rows, computed once; in the last layer only their keys and values are wanted.
    opening = 2 * shared * width * 2 * kv_width
    opening_rows = 2 * shared * (2 * width * width + 3 * width * inner) + 4 * width * sum(range(shared + 1))
    once = layers * opening + (layers - 1) * opening_rows
    head = 2 * response * width * config["vocab_size"]
    return once + batch * ((layers - 1) * layer(shared) + layer(rows - response) + head)


def training_step(config, batch, image, length, response, shared=0):
    """Operations of forward and backward over `batch` sequences with an image of (rows, cols) merged tokens each."""
    seen, embed = vision(config, *image)
    return batch * (3 * seen - embed) + 3 * decoder(config, length, response, shared, batch)
