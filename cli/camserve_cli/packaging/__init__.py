"""Model archives: weights, the configuration, the archive's file and its check."""
