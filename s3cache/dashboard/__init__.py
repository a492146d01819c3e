"""The statistics page in the admin.

model       an entry of the admin's index, with permissions and no table
admin       addresses, permissions, and what is shown at which address
selection   what the reader has chosen: whose numbers, of when
pages       what each page shows, of the figures in ``s3cache.metrics``
series      the history in steps that fit a chart
charts      charts as SVG
commits     the last commits, of the replica or with times of the log
inspector   what is in a cache under a key
actions     what the buttons do
progress    how far long work has come, while it is being done
numbers     numbers, sizes and times as texts
panel       a panel for django-debug-toolbar
"""
