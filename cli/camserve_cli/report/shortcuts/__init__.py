"""The search for shortcuts: what can be taken from photo to photo, and takes the class along."""
