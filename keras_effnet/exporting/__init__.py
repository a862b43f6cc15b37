"""Writers of exported models that need no converter."""
