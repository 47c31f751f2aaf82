mod blocks;
mod streams;
mod world;
