"""Who holds which subnet.  Pure: values in, values out."""
