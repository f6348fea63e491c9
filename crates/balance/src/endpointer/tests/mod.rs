mod due;
mod interleavings;
