"""Fine-tuning of a pretrained network on photos of your own."""
