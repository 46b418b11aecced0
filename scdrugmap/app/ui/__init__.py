"""What all pages share: layout, widgets, words, number formats, cached reads, tables of scores."""
