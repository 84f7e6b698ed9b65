"""Images: which image a path means, where its file is, what is in it, what a view shows of it.

identity         which image a path means, however it is spelled
root             the images of a raw root: found, measured, read
folders          the folders of a raw root, and what stands for them
archives         zip and tar files read in place
archive_members  what is in a zip or tar file
policy           the policy for awkward files: kept, rewritten, re-encoded or refused
formats          whole-file checks of JPEG, GIF, WebP, BMP and TIFF
png              the same for PNG
exif             the metadata of an image file that says how to turn it
views            the pixels of a view
tokens           how many tokens a picture takes in a Qwen2-VL model
"""
