"""CPU seconds from the call of a fit to its first step, in this fresh process, imports done: the last line printed.

    python -m benchmarks.first_step jaxdl mlp-32

For jaxdl "to its first step" is the whole of `fit(steps=1)`: tracing, loading or compiling, one update, and the way
back, so it is an upper bound. `benchmarks.overhead --part first-step` runs it in processes with a cold and a warm
compile cache.
"""

from __future__ import annotations

import sys
import time


def main(peer: str, row_name: str) -> float:
    """The cost in CPU seconds, by this process's own clock."""
    from benchmarks import networks

    row = networks.ROWS[row_name]
    if peer == "jaxdl":
        import jaxdl
        from benchmarks.peers import ours

        task, data = ours.task(row.model), networks.columns(row)
        fit, optimizer = jaxdl.fit, jaxdl.optim.adam(learning_rate=networks.LEARNING_RATE)
        begin = time.process_time()
        fit(task, data, optimizer=optimizer, steps=1, batch_size=row.batch_size, verbose=0)
        return time.process_time() - begin
    if peer == "torch":
        import torch

        from benchmarks.peers import pytorch

        torch.set_num_threads(1)
        x, y = pytorch.tensors(row)
        begin = time.process_time()
        model = pytorch.build(row.model)
        optimizer = torch.optim.Adam(model.parameters(), lr=networks.LEARNING_RATE)
        pytorch.cross_entropy(model(x[: row.batch_size]), y[: row.batch_size]).backward()
        optimizer.step()
        return time.process_time() - begin
    if peer == "keras":
        from benchmarks.peers import keras_jax

        keras = keras_jax.keras
        x, y = networks.columns(row)
        begin = time.process_time()
        model = keras_jax.build(row.model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(networks.LEARNING_RATE), loss=loss)
        model.fit(x[: row.batch_size], y[: row.batch_size], batch_size=row.batch_size, epochs=1, verbose=0)
        return time.process_time() - begin
    raise SystemExit(f"no peer is called {peer!r}: choose jaxdl, torch or keras")


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
