"""Write layer_names.json, the weight-bearing layers of `keras.applications`. Run: python make_layer_names.py"""

import json
from pathlib import Path

import keras

names = {}
for key in ("b0", "b7", "v2-b0", "v2-s"):
    model = getattr(keras.applications, f"EfficientNet{key.upper().replace('-', '')}")(weights=None)
    names[key] = [x.name for x in model.layers if x.weights and not isinstance(x, keras.layers.Normalization)]
Path(__file__).with_name("layer_names.json").write_text(json.dumps(names, indent=0) + "\n")
