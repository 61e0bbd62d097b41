"""Predictions and their Grad-CAM explanations for one batch of requests.

Nothing in this package knows TorchServe: ``gradcam_handler.py`` beside it is the adapter.
"""

__version__ = "0.1.0"
