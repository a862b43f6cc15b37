"""The time to scale a thousand candidate networks and count their cost by arithmetic.

command   python benchmarks/candidates.py
prints    the fastest of five rounds, in seconds of CPU time
measured  2026-11, one core of a shared machine at 2.5 GHz: 0.3 to 0.6 s
"""

import random
import time

from keras_effnet.complexity import complexity
from keras_effnet.scaling import CompoundScaling
from keras_effnet.variants import VARIANTS


def main() -> None:
    draw, law = random.Random(0), CompoundScaling()  # noqa: S311
    phis = [draw.uniform(0, 6.2) for _ in range(1000)]  # from B0 to about B7
    seconds = []
    for _ in range(5):
        start = time.process_time()
        for phi in phis:
            complexity(law.variant(VARIANTS["b0"], phi))
        seconds.append(time.process_time() - start)
    print(f"1000 candidates in {min(seconds):.2f} s")


if __name__ == "__main__":
    main()
