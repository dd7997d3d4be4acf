"""Pages for people, as HTML: what a data set holds, in a file and in a browser.

thumbnails  a record -> a small picture of it, with its boxes and masks drawn
"""
