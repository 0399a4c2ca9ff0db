package link

// finder looks links up for a batch.
type finder struct {
	name  func(string) (Info, bool, error)
	index func(int) (Info, bool, error)
}

// listFrom is the number of pairs from which one dump of all links costs less
// than asking for each.
const listFrom = 16

// finder asks the kernel link by link for small batches, and answers from one
// dump for large ones. The dump may be outdated when it is used; creation then
// fails with EEXIST and the caller asks again. When links come and go so fast
// that no dump completes, it asks link by link.
func (k *Kernel) finder(n int) finder {
	each := finder{name: k.Get, index: k.getIndex}
	if n < listFrom {
		return each
	}
	all, err := k.List()
	if err != nil {
		return each
	}
	byName, byIndex := make(map[string]int, len(all)), make(map[int]int, len(all))
	for i, in := range all {
		byName[in.Name], byIndex[in.Index] = i, i
	}
	answer := func(i int, ok bool) (Info, bool, error) {
		if !ok {
			return Info{}, false, nil
		}
		return all[i], true, nil
	}
	return finder{
		name:  func(name string) (Info, bool, error) { i, ok := byName[name]; return answer(i, ok) },
		index: func(index int) (Info, bool, error) { i, ok := byIndex[index]; return answer(i, ok) },
	}
}
