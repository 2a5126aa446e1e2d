"""Training many candidates of one model at once, each as if it were alone.

`Population` takes a task and trains configs: it looks through the task first (`preflight`, `data`, `checks`), cuts the
candidates into chunks that fit into memory (`chunk`), and calls their models together where `torch.func.vmap` can and
one by one where it cannot (`ways`, `models`, `replica`, `score`). On a GPU, steps are CUDA graphs (`replay`).
"""

from autoranger.search.population.population import Population as Population
