"""
EfficientNet as a table
=======================

Seven rows describe B0. Costs are arithmetic, so they can be shown before any network is built.
"""

from dataclasses import replace

import matplotlib.pyplot as plt

from keras_effnet import VARIANTS, EfficientNet
from keras_effnet.complexity import complexity

# %%
# Table 1 of the paper.

b0 = VARIANTS["b0"]
print("kernel  stride  expand  filters  repeats")
for row in b0.blocks:
    print(f"{row.kernel_size:6} {row.strides:7} {row.expand_ratio:7} {row.filters:8} {row.repeats:8}")

# %%
# Every network is one row, too. The table is computed; nothing is built.

names = ["lite0", "lite2", "lite4", "b0", "b1", "b2", "b3", "b4", "v2-b0", "v2-b1", "v2-b2", "v2-b3"]
costs = {name: complexity(VARIANTS[name]) for name in names}

figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
for prefix, color in {"lite": "#2f855a", "b": "#3b6ea5", "v2": "#b7791f"}.items():
    family = [name for name in names if name.startswith(prefix)]
    macs, parameters = ([getattr(costs[name], field) / 1e6 for name in family] for field in ("macs", "parameters"))
    axis.plot(macs, parameters, "o-", color=color)
    for name, x, y in zip(family, macs, parameters, strict=True):
        axis.annotate(name, (x, y), xytext=(6, -10), textcoords="offset points", fontsize=9)
axis.set(xscale="log", xlabel="multiply-adds (million)", ylabel="parameters (million)")
axis.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# A network of one's own is a changed row. The published table stays as it is.

blocks = (*b0.blocks[:5], replace(b0.blocks[5], kernel_size=3, repeats=3), b0.blocks[6])
smaller = replace(b0, name="smaller", blocks=blocks)
print(f"{complexity(b0).macs / 1e6:.0f} M -> {complexity(smaller).macs / 1e6:.0f} M multiply-adds")
model = EfficientNet(smaller, classes=10)
print(model.name, model.output_shape, f"{model.count_params():,} parameters")
