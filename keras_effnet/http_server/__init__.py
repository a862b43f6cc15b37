"""An HTTP server with a web page for people and TensorFlow Serving's REST API for programs."""
