"""Exported models: formats, 8 bits, engines, Predictor, TensorFlow Serving."""
