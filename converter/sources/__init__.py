"""Turns IMAGES, whatever it is, into entries; nothing is silently ignored.

The way there:

inputs         what IMAGES is, by its name, and where images and masks lie
patterns       several files by one pattern, as in a shell
recognition    what IMAGES is, by looking, and the options that follow from it
scan           the whole inventory of it, with masks
folders        files in a folder, or below a prefix of a store
folder_labels  classes and splits from their paths
name_notes     names that look the same, and others that are odd
archives       members of tars (tar_headers: the plain ones, fast), and of zips
row_sources    rows that name images or hold them, as each module below opens them -> entries
image_choice   images that a user wants, by their classes, a condition, a share or a number
joined         several IMAGES as one data set
duplicates     images with the same content
originals      found for a row, and read again, to be written
containers     how a part of a file is read, by the kind of file

What opens as rows, each with `recognize`, `imply_options` and `open_rows`:

tables         a table, whose rows name images
image_metadata a folder with metadata about its images
coco, voc, yolo  annotations of objects in boxes
webdataset     tars of samples
parquet        Parquet files that hold their images
tfds_sets      a folder of TensorFlow Datasets
tfrecord_sets  TFRecords from anyone
own_sets       a data set of ours

What these share:

split_names    which split a name says
rows           rows of a table, and what a cell may mean (dialects: of tables in text)
row_labels     the names of classes in a row
column_notes   what is odd about columns, and which are used
hints          which option to give where the images of a table are not found
detections     boxes in any order -> rows
json_streams   JSON that is larger than memory
yolo_configs   the YAML file of YOLO
data_files     files as Hugging Face lays them out, and the split of each
tar_files      which tars there are, and the split of each
samples        members of a tar -> samples -> rows
example_files  a file of records -> their features, without the images
example_rows   features of records -> rows
parquet_files  Parquet in bounded memory (parquet_headers: checked before Arrow reads)
parquet_columns  which columns hold images and classes
parquet_images sizes, digests and bytes of images in Parquet
parquet_rows   rows of Parquet files that hold images
spool          rows in a temporary file, to be read twice
"""
