# %% [markdown]
# # A training seen from Python
#
# A notebook in the percent format, which VS Code, PyCharm, Spyder and Jupyter (with jupytext) open as cells. It needs a
# config, `mine.toml`, as `mapnet init my-texts --to mine.toml` writes it. docs/python.md describes the functions.

# %%
import torch

from mapnet_cli.api import load

project = load("mine.toml")
project.run()  # from text to fine-tuned encoders; what is finished is skipped

# %% [markdown]
# ## Scores
#
# One row per method, seed, step, task and metric. `project.frame()` is the same as a pandas data frame.

# %%
for row in project.results():
    if row["metric"] == "mean":  # the average over the tasks
        print(f"{row['method']:<12} seed {row['seed']}  step {row['step']:>6}  {row['value']:.2f}")

frame = project.frame()
losses = frame[frame["metric"] == "validation_loss"]
print(losses.pivot_table(index="step", columns="method", values="value"))

# %% [markdown]
# ## The encoder
#
# A torch module that takes plain text. `project.encoder(method, seed, step)` chooses another checkpoint.

# %%
encoder = project.encoder("bert")
with torch.no_grad():
    vectors = encoder.vectors(["The cat sat on the mat.", "A cat was sitting on a mat.", "Prices rose again in May."])
print(torch.nn.functional.cosine_similarity(vectors[0], vectors[1:]))

# %% [markdown]
# ## Masks
#
# What each strategy hides in a sentence. `mapnet` draws from the network that was trained with the encoder.

# %%
for strategy in ("uniform", "spaced", "whole-word", "mapnet"):
    drawn = project.draw_masks("The cat sat on the mat, and nobody knew why.", strategy, draws=2)
    for hidden in drawn.masked:
        shown = ("_" if is_hidden else token for is_hidden, token in zip(hidden, drawn.tokens, strict=True))
        print(f"{strategy:<12}", " ".join(shown))
