"""The Space of the metric: a table to type rows into."""

from evaluate.utils import launch_gradio_widget
from worst_group_accuracy import WorstGroupAccuracy


if __name__ == "__main__":
    launch_gradio_widget(WorstGroupAccuracy())
