"""Who embeds a folder of images in the benchmark, each as a program of its own: ``python -m benchmarks.contestants.X``.

Each prints one line of JSON: ``first_s``, the seconds from the start of the measuring to the first vectors, ``images``
in all, and ``images_per_s`` from the first vectors on, which rests on ``steady_images``. What a program takes as a
whole, from its command to its exit, is measured from outside.
"""
