"""Pages for people, as HTML: what a data set holds, in a file and in a browser.

thumbnails       a record -> a small picture of it, with its boxes and masks drawn
contact_sheet    records drawn at random -> samples by class
record_facts     what those records say, counted
reject_pictures  files that were left out, and pictures of them
survey           all that is known of a data set: facts alone
findings         facts -> sentences about what a person should know
bottleneck       the step of a run that took longest -> what would help
charts           facts -> bars
texts            what data sets hold as text, made fit to be shown
page             all of it -> HTML that loads nothing
report           reads a data set, and makes its report
"""
