mod due;
mod interleavings;
mod subscribers;
