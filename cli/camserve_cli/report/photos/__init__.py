"""What a report is made of: photos, labels, boxes and masks, read from files."""
