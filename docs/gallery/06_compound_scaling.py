"""
Compound scaling
================

Equation 3 of the paper: depth, width and resolution grow together. Which network fits a budget is arithmetic.
"""

import matplotlib.pyplot as plt

from keras_effnet import CompoundScaling, fit_budget

# %%
# The paper's coefficients. One step of phi costs about twice as much.

scaling = CompoundScaling(alpha=1.2, beta=1.1, gamma=1.15)
for phi in range(4):
    print(phi, scaling.coefficients(phi))

# %%
# The largest network within each budget.

budgets = [0.4e9, 0.8e9, 1.6e9, 3.2e9, 6.4e9]
fits = [fit_budget(max_macs=budget) for budget in budgets]
for budget, fit in zip(budgets, fits, strict=True):
    network = fit.network
    print(
        f"{budget / 1e9:.1f} G: {network.resolution} pixels, width {network.width_coefficient:.2f}, "
        f"depth {network.depth_coefficient:.2f}"
    )

# %%
figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
for field, color in {"depth_coefficient": "#3b6ea5", "width_coefficient": "#b7791f"}.items():
    values = [getattr(fit.network, field) for fit in fits]
    axis.plot([budget / 1e9 for budget in budgets], values, "o-", label=field.split("_")[0], color=color)
values = [fit.network.resolution / 224 for fit in fits]
axis.plot([budget / 1e9 for budget in budgets], values, "o-", label="resolution / 224", color="#2f855a")
axis.set(xscale="log", xlabel="budget (giga multiply-adds)", ylabel="factor")
axis.set_xticks([budget / 1e9 for budget in budgets], [f"{budget / 1e9:g}" for budget in budgets])
axis.minorticks_off()
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
plt.show()
