"""Change one row of Table 1, and count its cost before and after building the network.

command   python examples/change_a_stage.py
expected  6 blocks instead of 4 in the sixth row: 1.22 x the parameters and 1.12 x the multiply-adds of B0
hardware  any; a few seconds, almost all for importing the backend
needs     pip install ".[tf-cpu]"
"""

import argparse
from dataclasses import replace

import keras_effnet
from keras_effnet.blocks import B0_BLOCKS, encode_blocks
from keras_effnet.complexity import complexity
from keras_effnet.variants import VARIANTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="no effect: the example is already small")
    parser.parse_args()

    blocks = (*B0_BLOCKS[:5], replace(B0_BLOCKS[5], repeats=6), B0_BLOCKS[6])
    print("\n".join(encode_blocks(blocks)))

    b0 = VARIANTS["b0"]
    deeper = replace(b0, name="deeper", blocks=blocks)
    before, after = complexity(b0), complexity(deeper)
    print(f"parameters x {after.parameters / before.parameters:.2f}, MACs x {after.macs / before.macs:.2f}")

    model = keras_effnet.EfficientNet(1.0, 1.0, 224, blocks=blocks, name="deeper")
    print(f"{model.count_params():,} parameters built, {after.parameters:,} counted")


if __name__ == "__main__":
    main()
