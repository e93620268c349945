use super::{Blocks, Pointer, Scan};

/// What becomes of a block, in memcheck's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// Nothing points to it.
    Definite,
    /// Only blocks that are lost lead to it.
    Indirect,
    /// What leads to it points into it, or into a block on the way.
    Possible,
    /// A root leads to it, from start to start.
    Reachable,
}

/// The grade of each block, by its number, from what `scan` has found.
///
/// Of lost blocks that lead to each other the one of the lowest address is
/// [`Definite`](Grade::Definite), unless a later one leads to it from outside.
pub fn grade(blocks: &Blocks, scan: &Scan) -> Vec<Grade> {
    let mut marks = Marks {
        grades: vec![Grade::Definite; blocks.len()],
        left: Vec::new(),
        blocks,
        scan,
    };
    for pointer in scan.roots() {
        marks.reach(pointer, Grade::Reachable);
    }
    marks.follow();
    for block in 0..blocks.len() as u32 {
        marks.lose(block);
    }
    marks.grades
}

struct Marks<'a> {
    grades: Vec<Grade>,
    /// Blocks whose pointers are yet to be followed.
    left: Vec<u32>,
    blocks: &'a Blocks,
    scan: &'a Scan,
}

impl Marks<'_> {
    /// Something that has `grade` holds `pointer`.
    fn reach(&mut self, pointer: Pointer, grade: Grade) {
        let found = match pointer.is_start() {
            true => grade,
            false => Grade::Possible,
        };
        if let Some(of) = self.grades.get_mut(pointer.block() as usize)
            && *of < found
        {
            *of = found;
            self.left.push(pointer.block());
        }
    }

    fn follow(&mut self) {
        while let Some(block) = self.left.pop() {
            let grade = self.grade(block);
            let (scan, blocks) = (self.scan, self.blocks);
            for pointer in scan.of(block).chain(blocks.outer(block)) {
                self.reach(pointer, grade);
            }
        }
    }

    /// If `block` is definitely lost, so is, indirectly, all that it leads to.
    fn lose(&mut self, block: u32) {
        if self.grade(block) != Grade::Definite {
            return;
        }
        self.left.push(block);
        let (scan, blocks) = (self.scan, self.blocks);
        while let Some(from) = self.left.pop() {
            for pointer in scan.of(from).chain(blocks.outer(from)) {
                let to = pointer.block();
                if to != block && self.grade(to) == Grade::Definite {
                    self.left.push(to);
                    if let Some(of) = self.grades.get_mut(to as usize) {
                        *of = Grade::Indirect;
                    }
                }
            }
        }
    }

    fn grade(&self, block: u32) -> Grade {
        let grade = self.grades.get(block as usize).copied();
        grade.unwrap_or(Grade::Reachable)
    }
}

#[cfg(test)]
mod tests {
    use super::Grade::*;
    use super::*;

    const BLOCK: u64 = 0x1000;

    fn block(number: u64) -> u64 {
        BLOCK + 0x100 * number
    }

    /// Grades of blocks of 32 bytes that hold these words each, and of roots.
    fn graded(words: &[&[u64]], roots: &[u64]) -> Vec<Grade> {
        let starts = (0..words.len() as u64).map(block);
        let blocks = Blocks::new(starts.map(|start| (start, 32)));
        let mut scan = Scan::default();
        scan.root_words(&blocks, roots.iter().copied());
        for words in words {
            scan.block_words(&blocks, words.iter().copied());
        }
        grade(&blocks, &scan)
    }

    #[test]
    fn a_list_is_as_lost_as_its_head() {
        let list: [&[u64]; 3] = [&[block(1)], &[block(2)], &[]];
        assert_eq!(graded(&list, &[block(0)]), [Reachable; 3]);
        assert_eq!(graded(&list, &[]), [Definite, Indirect, Indirect]);
        assert_eq!(graded(&list, &[block(1)]), [Definite, Reachable, Reachable]);
        assert_eq!(graded(&list, &[block(0) + 8]), [Possible; 3]);
        let both = [block(0) + 8, block(0)];
        assert_eq!(graded(&list, &both), [Reachable; 3]);
    }

    #[test]
    fn a_pointer_into_a_block_is_a_possible_one_from_there_on() {
        let list: [&[u64]; 3] = [&[block(1) + 4], &[block(2)], &[]];
        let expected = [Reachable, Possible, Possible];
        assert_eq!(graded(&list, &[block(0)]), expected);
        // Of what is lost, that makes no difference.
        assert_eq!(graded(&list, &[]), [Definite, Indirect, Indirect]);
    }

    #[test]
    fn of_a_ring_one_is_lost_and_leads_to_the_others() {
        let ring: [&[u64]; 4] = [&[block(1)], &[block(2)], &[block(0)], &[block(3)]];
        assert_eq!(graded(&ring, &[]), [Definite, Indirect, Indirect, Definite]);
        assert_eq!(graded(&ring, &[block(2)])[..3], [Reachable; 3]);
    }

    #[test]
    fn whoever_comes_later_and_leads_to_one_takes_it() {
        let words: [&[u64]; 4] = [&[block(1)], &[], &[block(0)], &[block(2)]];
        assert_eq!(
            graded(&words, &[]),
            [Indirect, Indirect, Indirect, Definite]
        );
    }

    #[test]
    fn a_pool_lives_as_long_as_one_of_its_blocks() {
        let blocks = Blocks::new([(0x1000, 0x1000), (0x1100, 16), (0x1200, 16)]);
        let mut scan = Scan::default();
        scan.root_words(&blocks, [0x1200]);
        assert_eq!(grade(&blocks, &scan), [Reachable, Definite, Reachable]);
    }

    #[test]
    fn a_long_list_needs_no_stack() {
        let all: Vec<_> = (1..100_000).map(|next| [block(next)]).collect();
        let words: Vec<&[u64]> = all.iter().map(|words| &words[..]).collect();
        let grades = graded(&words, &[]);
        assert_eq!(grades[0], Definite);
        assert!(grades[1..].iter().all(|grade| *grade == Indirect));
    }
}
