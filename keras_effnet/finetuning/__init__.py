"""Fine-tune a pretrained network on your own photos."""
