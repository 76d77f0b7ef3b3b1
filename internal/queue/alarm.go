package queue

import "time"

// alarms is a heap of the queues that wait for a time, earliest first: one timer serves them all.
type alarms []*queue

// set moves q to the time at, or takes it out if at is zero.
func (a *alarms) set(q *queue, at time.Time) {
	switch {
	case at.IsZero():
		a.remove(q)
	case q.alarm == 0:
		q.wakeAt = at
		*a = append(*a, q)
		q.alarm = len(*a)
		a.up(len(*a) - 1)
	case !at.Equal(q.wakeAt):
		q.wakeAt = at
		a.down(a.up(q.alarm - 1))
	}
}

func (a *alarms) remove(q *queue) {
	if q.alarm == 0 {
		return
	}
	i, last := q.alarm-1, len(*a)-1
	a.swap(i, last)
	(*a)[last] = nil
	*a = (*a)[:last]
	q.alarm, q.wakeAt = 0, time.Time{}
	if i < last {
		a.down(a.up(i))
	}
}

// first returns the queue with the earliest time, or nil.
func (a alarms) first() *queue {
	if len(a) == 0 {
		return nil
	}
	return a[0]
}

func (a alarms) swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].alarm, a[j].alarm = i+1, j+1
}

func (a alarms) up(i int) int {
	for i > 0 {
		parent := (i - 1) / 2
		if !a[i].wakeAt.Before(a[parent].wakeAt) {
			break
		}
		a.swap(i, parent)
		i = parent
	}
	return i
}

func (a alarms) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(a) {
			return
		}
		if child+1 < len(a) && a[child+1].wakeAt.Before(a[child].wakeAt) {
			child++
		}
		if !a[child].wakeAt.Before(a[i].wakeAt) {
			return
		}
		a.swap(i, child)
		i = child
	}
}
